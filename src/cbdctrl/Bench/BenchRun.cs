using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Host;
using HdrHistogram;

namespace Cbd.Programs.Ctrl.Bench;

/// <summary>Runs the jobs of one bench on a target, shows how far they are, and puts their numbers together.</summary>
internal static class BenchRun
{
    private const int ProgressIntervalMs = 500;

    /// <exception cref="CbdException">The target does not fit the options, or a request failed.</exception>
    public static BenchReport Execute(BenchOptions options, BenchTarget target, TextWriter? progress)
    {
        BlockDeviceInfo info = target.Device.Info;
        if (options.BlockBytes % info.LogicalBlockBytes != 0 || options.BlockBytes > info.MaxTransferBytes)
            throw new CbdException(CbdErrorKind.Invalid, $"--bs is {options.BlockBytes}: the device takes multiples of {info.LogicalBlockBytes} up to {info.MaxTransferBytes}");
        long size = Math.Min(options.SizeBytes ?? info.SizeBytes, info.SizeBytes);
        long share = size / options.Jobs / options.BlockBytes * options.BlockBytes;
        if (share == 0)
            throw new CbdException(CbdErrorKind.Invalid, $"{size} bytes are too few for {options.Jobs} job(s) with blocks of {options.BlockBytes}: give a larger --size or a smaller --bs");
        var jobs = new List<BenchJob>();
        try
        {
            for (int i = 0; i < options.Jobs; i++)
                jobs.Add(new BenchJob(options, target.Device, i, i * share, share));
            return Measure(options, target, jobs, progress);
        }
        finally
        {
            jobs.ForEach(job => job.Dispose());
        }
    }

    private static BenchReport Measure(BenchOptions options, BenchTarget target, List<BenchJob> jobs, TextWriter? progress)
    {
        List<Thread> threads = [.. jobs.Select((job, i) => new Thread(job.Run) { IsBackground = true, Name = $"bench-{i}" })];
        threads.ForEach(NeededThread.Begin);
        if (options.RampTime > TimeSpan.Zero)
            Thread.Sleep(options.RampTime);
        long start = Stopwatch.GetTimestamp();
        TimeSpan cpuStart = Environment.CpuUsage.TotalTime;
        ServerUse? serverStart = target.Server();
        Show(options, jobs, threads, progress);
        threads.ForEach(thread => thread.Join());
        ServerUse? serverEnd = target.Server();
        double elapsed = Stopwatch.GetElapsedTime(start).TotalSeconds;
        double cpu = (Environment.CpuUsage.TotalTime - cpuStart).TotalSeconds;
        if (jobs.Find(job => job.FirstError.Length > 0) is { } failed)
            throw new CbdException(CbdErrorKind.Failed, $"{jobs.Sum(job => job.Errors)} request(s) failed, first: {failed.FirstError}");

        var latencies = new LongHistogram(jobs[0].Latencies.HighestTrackableValue, 3);
        jobs.ForEach(job => latencies.Add(job.Latencies));
        long ios = jobs.Sum(job => job.Count);
        double seconds = jobs.Max(job => job.Measured.TotalSeconds);
        double rate = seconds > 0 ? ios / seconds : 0;
        return new BenchReport
        {
            Target = target.Name,
            Mode = PollModeText.Of(options.Mode),
            Rw = options.Pattern,
            BlockSize = options.BlockBytes,
            Iodepth = options.Depth,
            Numjobs = options.Jobs,
            RuntimeS = Math.Round(seconds, 3),
            Ios = ios,
            Errors = 0,
            Iops = Math.Round(rate, 1),
            MbPerS = Math.Round(rate * options.BlockBytes / 1e6, 3),
            LatencyUs = BenchLatencies.From(latencies),
            Percentiles = BenchPercentile.From(latencies),
            Cpu = new BenchCpu(
                Percent(cpu, elapsed),
                serverStart is { } from && serverEnd is { } to ? Percent((to.CpuMicroseconds - from.CpuMicroseconds) / 1e6, elapsed) : null),
            BytesAllocatedPerIo = PerIo(jobs.Sum(job => job.AllocatedBytes), ios),
            ServerBytesAllocatedPerIo = serverEnd?.AllocatedBytes - serverStart?.AllocatedBytes is { } allocated ? PerIo(allocated, ios) : null,
        };
    }

    /// <summary>Waits for the threads; on a terminal a line tells how far they are.</summary>
    private static void Show(BenchOptions options, List<BenchJob> jobs, List<Thread> threads, TextWriter? progress)
    {
        if (progress is null)
            return;
        long begin = Stopwatch.GetTimestamp();
        long before = 0;
        TimeSpan shown = TimeSpan.Zero;
        while (!threads.TrueForAll(thread => thread.Join(0)))
        {
            Thread.Sleep(ProgressIntervalMs);
            TimeSpan now = Stopwatch.GetElapsedTime(begin);
            long count = jobs.Sum(job => job.Count);
            double rate = (count - before) / (now - shown).TotalSeconds;
            progress.Write($"\r{options.Pattern} {now.TotalSeconds:F0}/{options.RunTime.TotalSeconds:F0} s  {rate:F0} IOPS  {rate * options.BlockBytes / 1e6:F0} MB/s   ");
            before = count;
            shown = now;
        }

        progress.Write("\r\e[K");
    }

    private static double Percent(double cpuSeconds, double seconds) => Math.Round(100 * cpuSeconds / seconds, 1);

    private static double PerIo(long bytes, long ios) => ios == 0 ? 0 : Math.Round((double)bytes / ios, 4);
}
