plan -f - --to v3 --diff dyff -o text
< ../../examples/reviews/mesh.yaml
< testdata/separator
< ../../examples/reviews/rollout.yaml
