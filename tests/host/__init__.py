"""Tests of the pure rules that the GPU host lives by."""
