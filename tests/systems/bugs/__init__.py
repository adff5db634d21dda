"""The bugs of the five systems, each as a target: the project in tests/examples with the fix taken out."""
