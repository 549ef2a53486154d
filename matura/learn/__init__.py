"""Logits to better weights: one `fit` for every stage. Knows neither sources nor exams."""
