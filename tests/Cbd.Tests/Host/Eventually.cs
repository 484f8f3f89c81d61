using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Cbd.Tests.Host;

/// <summary>Waits for what another thread does.</summary>
internal static class Eventually
{
    /// <summary>Far above what anything takes: a test that waits for what never comes says so.</summary>
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(1);

    public static void True(Func<bool> condition, [CallerArgumentExpression(nameof(condition))] string what = "")
    {
        var watch = Stopwatch.StartNew();
        while (!condition())
        {
            if (watch.Elapsed > s_limit)
                throw new TimeoutException($"this did not come true: {what}");
            Thread.Sleep(2);
        }
    }

    /// <summary>The result of a verb that was started on another thread.</summary>
    public static T Result<T>(Task<T> task)
    {
        True(() => task.IsCompleted);
#pragma warning disable xUnit1031 // It is completed.
        return task.GetAwaiter().GetResult();
#pragma warning restore xUnit1031
    }
}
