"""Reading and writing of files: MRC, STAR tables, SPIDER, TIFF. Every output is moved into place when it is complete."""
