lint -f ../../examples/reviews -n bookinfo
