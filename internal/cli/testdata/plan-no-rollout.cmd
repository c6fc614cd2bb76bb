plan -f ../../examples/reviews/mesh.yaml
