plan -f testdata/none.yaml
