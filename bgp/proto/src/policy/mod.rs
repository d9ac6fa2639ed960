//! What may enter and what may leave (RFC 8212: nothing, unless said).
