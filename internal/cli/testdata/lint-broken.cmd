lint -f testdata/broken/several.yaml
