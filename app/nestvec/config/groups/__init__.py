"""The settings by topic, a class each; `Settings` is made of all of them."""
