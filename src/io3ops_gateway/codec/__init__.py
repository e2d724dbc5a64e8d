"""The fast lane's translations between what clients say and what a model's server says. Pure."""
