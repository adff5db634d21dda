"""What any loaded model is made of: tensor names, device map, weights, KV caches, dtypes."""
