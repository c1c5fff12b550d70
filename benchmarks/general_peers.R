# Fits a mixture of Poisson regressions with flexmix and prints plain numbers, one item a line: its name, its values.
#
# Usage: Rscript general_peers.R N D K TOLERANCE MAX_ITER DATA_FILE
#   DATA_FILE  little-endian doubles, column by column: the features, the target, the responsibilities of the start
#
# The time is the user and system time of the fit alone, without start-up of R, loading and reading.

arguments <- commandArgs(TRUE)
n <- as.integer(arguments[1])
d <- as.integer(arguments[2])
k <- as.integer(arguments[3])
connection <- file(arguments[6], "rb")
read_matrix <- function(rows, columns) {
  matrix(readBin(connection, "double", rows * columns, endian = "little"), rows, columns)
}
x <- read_matrix(n, d)
y <- read_matrix(n, 1)[, 1]
responsibilities <- read_matrix(n, k)
close(connection)

features <- paste0("x", seq_len(d))
colnames(x) <- features
data <- data.frame(x, y = y)
set.seed(1)
suppressPackageStartupMessages(library(flexmix))
seconds <- system.time(
  fitted <- flexmix(
    reformulate(features, "y"), data = data, k = k, cluster = responsibilities,
    model = FLXMRglm(family = "poisson"), concomitant = FLXPmultinom(reformulate(features)),
    control = list(iter.max = as.integer(arguments[5]), tolerance = as.numeric(arguments[4]), minprior = 0)
  )
)
show <- function(name, values) cat(name, format(as.numeric(values), digits = 17, scientific = TRUE), "\n")
cat("version", as.character(packageVersion("flexmix")), "\n")
show("cpu_seconds", seconds[["user.self"]] + seconds[["sys.self"]])
show("iterations", fitted@iter)
show("converged", fitted@converged)
show("gate", parameters(fitted, which = "concomitant"))
show("experts", parameters(fitted))
