init reviews -f ../../examples/adopt/mesh.yaml -f testdata/service/reviews.yaml
