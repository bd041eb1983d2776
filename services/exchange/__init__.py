"""Partner organisations: what they may publish and see, and what became of what they sent."""
