"""The collectors: every module here is one. No other code belongs in this folder."""
