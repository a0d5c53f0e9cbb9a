"""What runs on a server: it keeps one connection to the control plane and makes its document true."""
