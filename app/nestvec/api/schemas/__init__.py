"""Models of bodies and answers for the OpenAPI document. They only describe: requests are parsed by hand."""
