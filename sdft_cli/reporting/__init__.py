"""What a report contains and how it looks: numbers from runs, tables, sentences, figures, the page."""
