lint -f -
