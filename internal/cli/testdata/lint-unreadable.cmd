lint -f ../lint/testdata/file.bad.yaml -f testdata/none.yaml
