using Cbd.Simulation;

return SimulateCommand.Run(args, Console.Out, Console.Error);
