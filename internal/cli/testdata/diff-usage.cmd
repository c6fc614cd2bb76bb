diff --no-such-flag
