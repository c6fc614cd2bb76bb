plan -f ../../examples/reviews
