lint -f testdata/broken/stream.json
