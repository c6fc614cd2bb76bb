lint -f ../lint/testdata/schema.bad.yaml -o json
