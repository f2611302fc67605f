"""What NVML says of NVIDIA GPUs: reading it, and its samples. Holds no metric's name."""
