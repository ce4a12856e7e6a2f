"""What runs on the GPU host; imports nothing of comfyweb."""
