lint -f ../lint/testdata/file.good.yaml -f ../lint/testdata/file.good.yaml
