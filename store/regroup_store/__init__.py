"""The store: every element of a study, in a folder or in S3. No torch, no Ray."""

from __future__ import annotations
