plan -f ../../examples/reviews --from v1 --to v3 -n bookinfo
