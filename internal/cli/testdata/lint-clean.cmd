lint -f ../../examples/reviews --scrape-interval 1s
