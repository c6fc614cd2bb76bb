init reviews -f ../../examples/reviews -f testdata/service
