"""What a report says and how it looks: facts from runs, tables, sentences, figures."""
