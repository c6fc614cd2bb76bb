plan -f ../lint/testdata/run-stops.bad.yaml --from v1
