//! A certificate authority for tests and demos: one issuing core behind SCEP and NDES, AD CS web enrolment, XCEP and
//! WSTEP, Symantec's and DigiCert's MPKI, and Entrust.
