init shop -f testdata/tracks
