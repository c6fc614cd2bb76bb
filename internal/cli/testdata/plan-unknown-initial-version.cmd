plan -f testdata/shop
