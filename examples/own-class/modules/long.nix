{
  cellar.recorder.keepDays = 60;
}
