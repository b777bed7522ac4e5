"""What a person looks at: files and arrays in, pictures and tables out."""
