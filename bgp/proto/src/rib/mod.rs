//! RIBs: attribute sets interned, Adj-RIB-In, Adj-RIB-Out (desired versus sent), best path, packing.
