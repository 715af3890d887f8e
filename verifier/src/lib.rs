//! The verifier service and the operator command line.
