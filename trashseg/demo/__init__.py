"""The model for people and programs: a page in Korean and English, and an HTTP interface.

No ray and no mlflow here; gradio is imported by page.py alone.
"""
