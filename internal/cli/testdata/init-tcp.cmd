init redis -f testdata/redis
