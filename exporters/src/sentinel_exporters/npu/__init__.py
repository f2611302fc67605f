"""Ascend NPUs, whatever tells of them. Runs no tool."""
