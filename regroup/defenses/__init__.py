"""Test-time defenses: what decides, and what an attacker who knows it differentiates."""
