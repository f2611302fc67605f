"""Huawei's npu-smi: run it, and decode what it prints. Makes no metric."""
