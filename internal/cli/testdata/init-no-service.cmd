init cart -f testdata/service
