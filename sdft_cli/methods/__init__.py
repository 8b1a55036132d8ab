"""Every file here is one method: a page of data named METHOD (see CONTRIBUTING, "Add a method")."""
