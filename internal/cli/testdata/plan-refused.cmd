plan -f testdata/broken/later.yaml
