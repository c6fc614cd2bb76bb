init shop -f testdata/shop/service.yaml
